@echo off
rem Times the preparation of faces for training. Flags of "main.py bench samples" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" bench samples %*
:end
call "%~dp0end.bat"
