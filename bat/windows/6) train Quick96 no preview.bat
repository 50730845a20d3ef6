@echo off
rem Trains Quick96 without a window: previews go to image files in the model folder. Flags of "main.py train" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" train --training-data-src-dir "%WORKSPACE%\data_src\aligned" --training-data-dst-dir "%WORKSPACE%\data_dst\aligned" --pretrained-model-dir "%PRETRAINED_QUICK96%" --model-dir "%WORKSPACE%\model" --model Quick96 --no-preview %*
:end
call "%~dp0end.bat"
