# Python in a virtual environment of its own.
import ../mk-preview.nix {
  packages = pkgs: [ pkgs.python3 ];
  setup = ''
    python3 -m venv .venv
    .venv/bin/pip install --requirement requirements.txt
  '';
  run = "exec .venv/bin/gunicorn --bind 0.0.0.0:$PORT app:app";
  port = 8000;
}
