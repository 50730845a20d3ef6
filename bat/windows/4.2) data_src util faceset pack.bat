@echo off
rem Packs the src faces into one faceset.pak. Flags of "main.py util" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" util --input-dir "%WORKSPACE%\data_src\aligned" --pack-faceset %*
:end
call "%~dp0end.bat"
