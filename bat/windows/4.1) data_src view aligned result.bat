@echo off
rem Opens the folder of src faces as this system shows pictures.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" bare
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\bat\env\view.py" "%WORKSPACE%\data_src\aligned" %*
:end
call "%~dp0end.bat"
