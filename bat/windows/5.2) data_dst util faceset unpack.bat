@echo off
rem Unpacks the faceset.pak of the dst faces. Flags of "main.py util" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" util --input-dir "%WORKSPACE%\data_dst\aligned" --unpack-faceset %*
:end
call "%~dp0end.bat"
