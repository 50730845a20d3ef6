@echo off
rem Copies the dst faces with labelled polygons into a folder of their own. Flags of "main.py xseg fetch" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" xseg fetch --input-dir "%WORKSPACE%\data_dst\aligned" %*
:end
call "%~dp0end.bat"
