@echo off
rem Keeps the face data of the dst faces in a meta.dat, before editing them in other programs. Flags of "main.py util" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" util --input-dir "%WORKSPACE%\data_dst\aligned" --save-faceset-metadata %*
:end
call "%~dp0end.bat"
