#!/bin/sh
# Runs a main class, or a single source file, with the client on its class path: run.sh CLASS|FILE.java [ARGUMENT…].
# Builds what is missing or old.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
classpath=client/target/classpath
if [ ! -f "$classpath" ] || [ -n "$(find pom.xml stubs/pom.xml client/pom.xml client/src ../../proto -newer "$classpath" -type f 2>/dev/null | head -n 1)" ]; then
  mvn -B -ntp -q -pl stubs,client test-compile org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath \
    -Dmdep.outputFile=target/classpath -Dmdep.includeScope=test >&2
  touch "$classpath"
fi
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=${RUN_TIER:-4} -cp "client/target/test-classes:client/target/classes:stubs/target/classes:$(cat $classpath)" "$@"
