@echo off
rem Deletes data_src, data_dst and model of the workspace, once the question is answered, and makes them anew.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" bare
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\bat\env\clear.py" "%WORKSPACE%" %*
:end
call "%~dp0end.bat"
