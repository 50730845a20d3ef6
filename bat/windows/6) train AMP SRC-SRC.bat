@echo off
rem Trains AMP on the src faces of the workspace on both sides, a first stage. Flags of "main.py train" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" train --training-data-src-dir "%WORKSPACE%\data_src\aligned" --training-data-dst-dir "%WORKSPACE%\data_src\aligned" --model-dir "%WORKSPACE%\model" --model AMP %*
:end
call "%~dp0end.bat"
