@rem The last line of every launcher: keeps the window open, so that a double-clicking user can read what was said.
@set "CODE=%ERRORLEVEL%"
@if not "%CODE%"=="0" echo Ended with exit code %CODE%.
@if not defined FACESMITH_NO_PAUSE pause
@exit /b %CODE%
