@echo off
rem Deletes the labelled polygons of the src faces. Flags of "main.py xseg remove_labels" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" xseg remove_labels --input-dir "%WORKSPACE%\data_src\aligned" %*
:end
call "%~dp0end.bat"
