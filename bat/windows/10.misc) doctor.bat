@echo off
rem Says what is wrong with this machine and what to do about it; sets nothing up. Flags of "main.py doctor" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" present
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" doctor --workspace "%WORKSPACE%" %*
:end
call "%~dp0end.bat"
