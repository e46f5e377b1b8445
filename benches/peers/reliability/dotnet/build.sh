#!/usr/bin/env bash
# Compiles Reliability.cs against the shared framework of an installed .NET runtime, with Mono's `mcs`: an
# SDK is not needed. Arguments: the `dotnet` command, a folder for the result.
set -euo pipefail
cd "$(dirname "$0")"
dotnet=$1 out=$2
line=$("$dotnet" --list-runtimes | grep '^Microsoft.NETCore.App ' | tail -1)
version=$(cut -d' ' -f2 <<<"$line")
framework=$(sed 's/.*\[\(.*\)\]/\1/' <<<"$line")/$version
references=()
for dll in "$framework"/System*.dll; do
    case $dll in
        */System.Private.CoreLib.dll) references+=("-r:$dll") ;;
        */System.Private.*) ;;
        *) references+=("-r:$dll") ;;
    esac
done
mkdir -p "$out"
# Warnings say that fields exist for their size only, and that the copies of basic types are the same.
mcs -nologo -warn:0 -optimize+ -noconfig -nostdlib -sdk:none "${references[@]}" -out:"$out/Reliability.dll" Reliability.cs
cat >"$out/Reliability.runtimeconfig.json" <<JSON
{
  "runtimeOptions": {
    "framework": { "name": "Microsoft.NETCore.App", "version": "$version" },
    "configProperties": { "System.Globalization.Invariant": true }
  }
}
JSON
