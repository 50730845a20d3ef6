@echo off
rem Trains XSeg on the labelled faces in the workspace. Flags of "main.py train" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" train --training-data-src-dir "%WORKSPACE%\data_src\aligned" --training-data-dst-dir "%WORKSPACE%\data_dst\aligned" --pretraining-data-dir "%PRETRAIN_FACES%" --model-dir "%WORKSPACE%\model" --model XSeg %*
:end
call "%~dp0end.bat"
