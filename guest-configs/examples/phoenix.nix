# Phoenix with a database on the host: DATABASE_URL is in the environment of both commands.
import ../mk-preview.nix {
  packages = pkgs: [
    pkgs.elixir
    pkgs.erlang
  ];
  environment.MIX_ENV = "prod";
  setup = ''
    mix local.hex --force && mix local.rebar --force
    mix deps.get --only prod
    mix compile
    mix assets.deploy
    mix ecto.migrate
  '';
  run = "exec mix phx.server";
  port = 4000;
  database = "host";
}
