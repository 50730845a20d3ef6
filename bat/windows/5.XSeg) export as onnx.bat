@echo off
rem Writes the trained XSeg as an ONNX file. Flags of "main.py exportdfm" may follow.
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0env.bat" installed dfm
if not "%ERRORLEVEL%"=="0" goto end
"%PYTHON%" "%ROOT%\main.py" exportdfm --model-dir "%WORKSPACE%\model" --model XSeg %*
:end
call "%~dp0end.bat"
