@echo off
rem Deletes the masks that were applied to the dst faces. Flags of "main.py xseg remove" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" xseg remove --input-dir "%WORKSPACE%\data_dst\aligned" %*
:end
call "%~dp0end.bat"
