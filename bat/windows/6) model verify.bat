@echo off
rem Reads every file of the models of the workspace: whole, finite, as it was saved. Flags of "main.py model verify" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" model verify --model-dir "%WORKSPACE%\model" %*
:end
call "%~dp0end.bat"
