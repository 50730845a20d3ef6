@echo off
rem Makes a video of the preview history of a model. Flags of "main.py videoed timelapse" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed video
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" videoed timelapse --model-dir "%WORKSPACE%\model" --output-file "%WORKSPACE%\preview_history.mp4" %*
:end
call "%~dp0end.bat"
