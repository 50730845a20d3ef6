@echo off
rem Trains Quick64 on the faces in the workspace. Flags of "main.py train" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" train --training-data-src-dir "%WORKSPACE%\data_src\aligned" --training-data-dst-dir "%WORKSPACE%\data_dst\aligned" --model-dir "%WORKSPACE%\model" --model Quick64 %*
:end
call "%~dp0end.bat"
