@echo off
rem Gives the src faces the masks that the trained XSeg sees. Flags of "main.py xseg apply" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" xseg apply --input-dir "%WORKSPACE%\data_src\aligned" --model-dir "%WORKSPACE%\model" %*
:end
call "%~dp0end.bat"
