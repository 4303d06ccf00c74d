# Types of the options in `innkeeper.preview`, for nixpkgs' `lib`.
{ lib }:
let
  inherit (lib) mkOption types;

  # Lower-case words that units are named after.
  unitWord = "[a-z0-9]+(-+[a-z0-9]+)*";

  # Seconds. The proxy's configuration has each of them, so that it is the same for all previews.
  timeouts = [
    1
    2
    5
    10
    15
    30
    60
    90
    120
    180
    300
    600
    1800
    3600
  ];

  environment = mkOption {
    type = types.attrsOf (
      types.oneOf [
        types.str
        types.int
        types.path
        types.package
      ]
    );
    default = { };
    example = lib.literalExpression ''{ NODE_ENV = "production"; }'';
    description = "Environment variables. Secrets belong into {option}`innkeeper.preview.hostSecrets` instead: every user of the host can read these values.";
  };

  worker = types.submodule {
    options = {
      run = mkOption {
        type = types.lines;
        example = "bundle exec sidekiq";
        description = "Command, in bash. It runs as long as the app, and is started again when it ends.";
      };
      inherit environment;
    };
  };

  schedule = types.submodule {
    options = {
      run = mkOption {
        type = types.lines;
        example = "python manage.py clearsessions";
        description = "Command, in bash. It is skipped while a new commit is being set up.";
      };
      at = mkOption {
        type = types.strMatching "[A-Za-z0-9*:,./~ _+-]+";
        example = "*-*-* 03:00:00";
        description = "Times at which it starts, as systemd's `OnCalendar=`: `hourly`, `daily`, `*:0/15` for every 15 minutes.";
      };
      inherit environment;
    };
  };

  # Options that a route and an app have in common.
  protocol = mkOption {
    type = types.enum [
      "http"
      "h2c"
    ];
    default = "http";
    example = "h2c";
    description = "Protocol between the host's proxy and the app. `http` includes WebSockets. `h2c` is HTTP/2 without TLS, for gRPC servers.";
  };
  timeout = mkOption {
    type = types.nullOr (types.enum timeouts);
    default = null;
    example = 60;
    description = "Maximum time in seconds until the app's response begins; visitors get 504 after it. With null, there is no limit. `h2c` excludes it: Caddy 2.6 does not apply it there.";
  };
in
rec {
  inherit unitWord;

  route = types.submodule {
    options = {
      inherit protocol timeout;
      path = mkOption {
        type = types.strMatching "/.*";
        example = "/api/*";
        description = "The path, `/` for everything else.";
      };
      port = mkOption {
        type = types.port;
        description = "The port that the app listens on.";
      };
      stripPrefix = mkOption {
        type = types.bool;
        default = false;
        description = "Strip the prefix from the path before the app receives the request.";
      };
      healthPath = mkOption {
        type = types.nullOr (types.strMatching "/.*");
        default = null;
        description = "Path that responds with a status from 200 to 399 when the app is ready. With null, any status below 500 at the route's own path counts.";
      };
    };
  };

  hostPrefix = types.strMatching unitWord;

  # A program of the repository that answers requests.
  app = types.submodule {
    options = {
      packages = mkOption {
        type = types.listOf types.package;
        default = [ ];
        example = lib.literalExpression "[ pkgs.nodejs_22 ]";
        description = "Packages whose programs all commands of the app can use. Names: https://search.nixos.org/packages.";
      };
      directory = mkOption {
        type = types.strMatching "[A-Za-z0-9._-][A-Za-z0-9._/-]*";
        default = ".";
        example = "packages/api";
        description = "Folder of the repository in which the app's commands run.";
      };
      setup = mkOption {
        type = types.lines;
        default = "";
        example = "npm ci && npm run build";
        description = "Commands, in bash, that prepare a commit: install dependencies, build, migrate the database. They run for each commit, while the former one still serves.";
      };
      seed = mkOption {
        type = types.lines;
        default = "";
        example = "npm run seed";
        description = "Commands, in bash, that fill a new database. They run after `setup`, once for each database: again after `preview db reset`, and not for later commits. If they fail, they run again with the next attempt.";
      };
      run = mkOption {
        type = types.lines;
        example = "npm start";
        description = "Command, in bash, that serves the app. It is started again when it ends.";
      };
      port = mkOption {
        type = types.port;
        example = 3000;
        description = "Port that the app listens on, on all addresses (`0.0.0.0`) and not only on `localhost`. The variable `PORT` has the same number.";
      };
      path = mkOption {
        type = types.coercedTo types.str lib.singleton (types.nonEmptyListOf (types.strMatching "/.*"));
        default = "/";
        example = [
          "/api/*"
          "/socket"
        ];
        description = "Path, or list of paths, of the preview's URL that the app answers. `/` is everything that no other app answers.";
      };
      stripPrefix = mkOption {
        type = types.bool;
        default = false;
        description = "Strip the prefix from the path before the app receives the request: `/users` instead of `/api/users`.";
      };
      hostPrefix = mkOption {
        type = types.nullOr hostPrefix;
        default = null;
        example = "admin";
        description = "Serves the app at a host name of its own, `<prefix>-<slug>.<domain>`, instead of the preview's.";
      };
      healthPath = mkOption {
        type = types.nullOr (types.strMatching "/.*");
        default = null;
        example = "/health";
        description = "Path that responds with a status from 200 to 399 when the app is ready. With null, any status below 500 counts.";
      };
      database = mkOption {
        type = types.nullOr (
          types.enum [
            "host"
            "container"
          ]
        );
        default = null;
        example = "host";
        description = "`host`: the preview has a PostgreSQL database, whose address is in `DATABASE_URL`. `container`, or null: the app provides its database, such as a file.";
      };
      hostSecrets = mkOption {
        type = types.listOf (types.strMatching "[A-Z_][A-Z0-9_]*");
        default = [ ];
        example = [ "MAIL_KEY" ];
        description = "Names of secrets of the host, which become environment variables. The host decides which secrets a repository receives.";
      };
      workers = mkOption {
        type = types.attrsOf (types.coercedTo types.str (run: { inherit run; }) worker);
        default = { };
        example = lib.literalExpression ''{ jobs = "bundle exec sidekiq"; }'';
        description = "Programs beside the app that answer no requests, by name: a command, or a command with an environment. They have the app's packages, environment and folder.";
      };
      schedules = mkOption {
        type = types.attrsOf schedule;
        default = { };
        example = lib.literalExpression ''{ cleanup = { at = "daily"; run = "npm run cleanup"; }; }'';
        description = "Commands that run at certain times, by name. They have the app's packages, environment and folder.";
      };
      inherit environment protocol timeout;
    };
  };
}
