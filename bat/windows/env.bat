rem Called by every launcher: "env.bat installed" (a Python with everything in it; "installed dfm": with that extra of
rem setup.cfg too), "env.bat present" (the environment as far as it is there, else any Python) or "env.bat bare" (any
rem Python 3.10+).
rem Sets ROOT, PYTHON, WORKSPACE, PRETRAIN_FACES and PRETRAINED_QUICK96. Own paths belong in bat\env\local.bat; see bat\env\README.md.
chcp 65001 >nul
set "PYTHONHOME="
set "PYTHONPATH="
set "PYTHONNOUSERSITE=1"
set "PYTHONUTF8=1"
for %%I in ("%~dp0..\..") do set "ROOT=%%~fI"
if exist "%ROOT%\bat\env\local.bat" call "%ROOT%\bat\env\local.bat"
set "WORKSPACE=%ROOT%\workspace"
if defined FACESMITH_WORKSPACE set "WORKSPACE=%FACESMITH_WORKSPACE%"
rem A backslash at its end would quote the quote behind it.
if "%WORKSPACE:~-1%"=="\" set "WORKSPACE=%WORKSPACE:~0,-1%"
set "PRETRAIN_FACES=%ROOT%\pretrain_faces"
if defined FACESMITH_PRETRAIN_FACES set "PRETRAIN_FACES=%FACESMITH_PRETRAIN_FACES%"
set "PRETRAINED_QUICK96=%ROOT%\pretrain_Quick96"
if defined FACESMITH_PRETRAINED_QUICK96 set "PRETRAINED_QUICK96=%FACESMITH_PRETRAINED_QUICK96%"
set "PYTHON=%FACESMITH_PYTHON%"
for %%C in ("py -3" "py -3.13" "py -3.12" "py -3.11" "py -3.14" "py -3.10" "python" "python3") do if not defined PYTHON call :find_python %%~C
if not defined PYTHON goto no_python
if "%~1"=="present" if not defined FACESMITH_PYTHON if exist "%ROOT%\.venv\Scripts\python.exe" set "PYTHON=%ROOT%\.venv\Scripts\python.exe"
if not "%~1"=="installed" exit /b 0
if defined FACESMITH_PYTHON goto workspace
"%PYTHON%" "%ROOT%\bat\env\setup.py" --extras "%~2"
if not "%ERRORLEVEL%"=="0" exit /b 1
set "PYTHON=%ROOT%\.venv\Scripts\python.exe"

:workspace
if defined FACESMITH_WORKSPACE if not exist "%WORKSPACE%\" goto no_workspace
for %%D in ("data_src\aligned" "data_dst\aligned" "model") do if not exist "%WORKSPACE%\%%~D\" mkdir "%WORKSPACE%\%%~D"
exit /b 0

:find_python
for /f "delims=" %%P in ('%* -c "import sys; (3, 10) <= sys.version_info[:2] <= (3, 14) and print(sys.executable)" 2^>nul') do set "PYTHON=%%P"
exit /b 0

:no_python
echo facesmith needs Python 3.10 to 3.14 and found none: install it from python.org and start again.
exit /b 1

:no_workspace
echo FACESMITH_WORKSPACE is "%WORKSPACE%", which is no folder: correct it in bat\env\local.bat
exit /b 1
