@echo off
rem Puts the face data of a meta.dat back into src faces that were edited. Flags of "main.py util" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" util --input-dir "%WORKSPACE%\data_src\aligned" --restore-faceset-metadata %*
:end
call "%~dp0end.bat"
