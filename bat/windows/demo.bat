@echo off
rem Trains SAEHD on two made-up people, no question asked; the numbers are in bat\env\demo.py. Flags of "main.py train" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\bat\env\demo.py" %*
:end
call "%~dp0end.bat"
