@echo off
rem Copies a model as last saved to a folder of its backups. Flags of "main.py model backup" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" model backup --model-dir "%WORKSPACE%\model" %*
:end
call "%~dp0end.bat"
