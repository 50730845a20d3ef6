@echo off
rem Puts a backup in the place of a model, which is backed up first. Flags of "main.py model restore" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" model restore --model-dir "%WORKSPACE%\model" %*
:end
call "%~dp0end.bat"
