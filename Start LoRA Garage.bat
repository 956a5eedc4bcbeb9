@echo off
rem Start LoRA Garage on a PC that may have no Python: as start.sh does, whose head says what that is. Arguments go to launch.py.
setlocal DisableDelayedExpansion
cd /d "%~dp0" || exit /b 1
setlocal EnableDelayedExpansion
chcp 65001 >nul

set "said=%LORA_GARAGE_LANG%"
if not defined said for /f "tokens=3" %%l in ('reg query "HKCU\Control Panel\International" /v LocaleName 2^>nul') do set "said=%%l"
set "language=en"
if /i "!said:~0,2!"=="zh" set "language=zh"

set "uv="
for /f "delims=" %%u in ('where uv.exe 2^>nul') do if not defined uv set "uv=%%u"
if not defined uv (
    set "uv=!CD!\.uv\uv.exe"
    set "UV_PYTHON_INSTALL_DIR=!CD!\.uv\python"
    set "UV_CACHE_DIR=!CD!\.uv\cache"
    if not exist "!uv!" call :fetch_uv
    if not exist "!uv!" goto stop
)
if not defined UV_PYTHON set "UV_PYTHON=3.12"
if not defined UV_PYTHON_PREFERENCE set "UV_PYTHON_PREFERENCE=only-managed"
set "UV_PYTHON_INSTALL_BIN=0"
set "UV_PYTHON_INSTALL_REGISTRY=0"
set "python=!UV_PYTHON!"
"!uv!" python find --system --no-project "!python!" >nul 2>nul
if errorlevel 1 (
    call :say python
    "!uv!" python install "!python!"
    if errorlevel 1 (
        call :say no_python
        goto stop
    )
)
"!uv!" run --no-project --isolated launch.py %*
set "status=!ERRORLEVEL!"
if not "!status!"=="0" pause
exit /b !status!

:stop
rem Opened by a double-click, the window would close over the sentence.
pause
exit /b 1

:fetch_uv
set "platform=%PROCESSOR_ARCHITECTURE%"
if defined PROCESSOR_ARCHITEW6432 set "platform=%PROCESSOR_ARCHITEW6432%"
if /i "!platform!"=="AMD64" set "platform=x86_64-pc-windows-msvc"
if /i "!platform!"=="ARM64" set "platform=aarch64-pc-windows-msvc"
set "expected="
for /f "usebackq tokens=1-3" %%a in ("packaging\uv.txt") do (
    if "%%a"=="version" set "version=%%b"
    if "%%a"=="!platform!" (
        set "megabytes=%%b"
        set "expected=%%c"
    )
)
if not defined expected (
    call :say no_uv
    goto :eof
)
set "url=https://github.com/astral-sh/uv/releases/download"
if defined LORA_GARAGE_UV_FROM set "url=%LORA_GARAGE_UV_FROM%"
set "url=!url!/!version!/uv-!platform!.zip"
call :say fetch
if exist .uv.part rmdir /s /q .uv.part
set "folder=!CD!"
mkdir .uv.part || (
    call :say cannot_write
    goto :eof
)
"%SystemRoot%\System32\curl.exe" -fL --progress-bar --connect-timeout 20 -o .uv.part\uv.zip "!url!"
set "status=!ERRORLEVEL!"
set "size=0"
for %%f in (.uv.part\uv.zip) do if exist "%%f" set "size=%%~zf"
set "found="
if "!status!"=="0" for /f "skip=1 delims=" %%h in ('certutil -hashfile .uv.part\uv.zip SHA256') do if not defined found set "found=%%h"
if defined found set "found=!found: =!"
if not "!status!"=="0" (
    if "!size!"=="0" (call :say unreachable) else call :say cut
) else if /i not "!found!"=="!expected!" (
    call :say wrong_hash
) else (
    if not exist .uv mkdir .uv
    "%SystemRoot%\System32\tar.exe" -xf .uv.part\uv.zip -C .uv.part && move /y .uv.part\uv.exe .uv\uv.exe >nul || call :say cut
)
rmdir /s /q .uv.part
goto :eof

:say
rem A sentence of the catalogue with the values of the variables that it names.
set "sentence=%~1"
for /f "usebackq tokens=1,* delims=:" %%a in ("core\locales\!language!\start.yaml") do if "%%a"=="%~1" set "sentence=%%b"
set "sentence=!sentence:~2,-1!"
set "sentence=!sentence:{version}=%version%!"
set "sentence=!sentence:{megabytes}=%megabytes%!"
set "sentence=!sentence:{url}=%url%!"
set "sentence=!sentence:{status}=%status%!"
set "sentence=!sentence:{found}=%found%!"
set "sentence=!sentence:{expected}=%expected%!"
set "sentence=!sentence:{platform}=%platform%!"
set "sentence=!sentence:{python}=%python%!"
set "sentence=!sentence:{folder}=%folder%!"
echo !sentence!
goto :eof
