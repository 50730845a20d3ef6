@echo off
rem Times a training iteration against its floor. Flags of "main.py bench step" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" bench step %*
:end
call "%~dp0end.bat"
