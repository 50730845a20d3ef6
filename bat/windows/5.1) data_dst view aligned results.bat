@echo off
rem Opens the folder of dst faces as this system shows pictures.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" bare
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\bat\env\view.py" "%WORKSPACE%\data_dst\aligned" %*
:end
call "%~dp0end.bat"
