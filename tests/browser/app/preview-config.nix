# An app of one shell script: nc runs it for each connection.
{ pkgs, ... }:
{
  innkeeper.preview.app = {
    packages = [ pkgs.busybox ];
    run = "exec nc -ll -p $PORT -e sh app.sh";
    port = 8080;
  };
}
