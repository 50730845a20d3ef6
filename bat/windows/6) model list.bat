@echo off
rem Lists the models of the workspace and their backups. Flags of "main.py model list" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" model list --model-dir "%WORKSPACE%\model" %*
:end
call "%~dp0end.bat"
