@echo off
rem Set-up with the test extras, then lint, types and tests. --fresh: in a new environment. Arguments of pytest may follow (-m slow).
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" bare
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\bat\env\checks.py" %*
:end
call "%~dp0end.bat"
