@echo off
rem Packs the dst faces into one faceset.pak. Flags of "main.py util" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" util --input-dir "%WORKSPACE%\data_dst\aligned" --pack-faceset %*
:end
call "%~dp0end.bat"
