@echo off
rem Exports a Quick64 model of the workspace as a .dfm. Flags of "main.py exportdfm" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed dfm
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" exportdfm --model-dir "%WORKSPACE%\model" --model Quick64 %*
:end
call "%~dp0end.bat"
