#!/usr/bin/env bash
# Puts interview_peer on Fly.io without cutting anybody off: checks, empties the running server,
# deploys, verifies, prints the address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
usage: ./deploy.sh [--dry-run] [--app NAME] [--config FILE] [--drain-seconds N | --no-drain]

  --dry-run          print each step and change nothing; needs neither fly nor an account
  --app NAME         the app; otherwise the one that the configuration names. Its address is then
                     https://NAME.fly.dev, too, where the configuration has that of its own app
  --config FILE      the configuration; fly.toml if not given
  --drain-seconds N  how long running interviews may go on; 7200 if not given
  --no-drain         leave what runs to the SIGTERM of the deployment

Secrets that are set in the environment are passed on to the app: OPENAI_API_KEY,
INTERVIEW_ADMIN_KEY, INTERVIEW_JOIN_SECRET. INTERVIEW_PUBLIC_IP there stands for the app's
dedicated IPv4 instead of the one that `fly ips list` names.
Exit codes: 0 deployed, 1 a step failed, 2 something is missing and nothing was changed.
TEXT
}

say() { printf '%s\n' "$*"; }
missing() { printf '%s\n' "$*" >&2; exit 2; }
failed() { printf '%s\n' "$*" >&2; exit 1; }

dry=false app="" config=fly.toml drain=7200
while (($#)); do
    case $1 in
        --dry-run) dry=true ;;
        --app | --config | --drain-seconds)
            [[ -n ${2:-} ]] || missing "$1 needs a value."
            case $1 in
                --app) app=$2 ;;
                --config) config=$2 ;;
                *)
                    drain=$2
                    [[ $drain =~ ^[0-9]+$ ]] || missing "--drain-seconds must be a whole number of seconds."
                    ;;
            esac
            shift
            ;;
        --no-drain) drain="" ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

[[ -r $config ]] || missing "There is no $config here."

# The value of a name in the configuration; nothing where it is not set.
configured() {
    sed -nE "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*(\"([^\"]*)\"|'([^']*)').*/\2\3/p" "$config" | head -n 1
}

named=$(configured app)
[[ -n $app ]] || app=$named
[[ -n $app ]] || missing "Name the app: --app, or app = \"…\" in $config."
url=$(configured INTERVIEW_PUBLIC_URL)
url=${url%/}
deployment=(deploy --app "$app" --config "$config" --ha=false)
if [[ -z $url ]]; then
    url="https://$app.fly.dev"
elif [[ $app != "$named" && $url != "https://$app.fly.dev" ]]; then
    # Candidates of one app must not be sent to another.
    [[ -n $named && $url == "https://$named.fly.dev" ]] ||
        missing "INTERVIEW_PUBLIC_URL in $config, $url, is of the app \"$named\": give $app a file of its own (--config) that names both."
    url="https://$app.fly.dev"
    deployment+=(--env "INTERVIEW_PUBLIC_URL=$url")
fi

step=0
begin() { step=$((step + 1)); say "$step. $*"; }
# What changes something: run, or only shown. Secrets never stand in an argument.
change() {
    if $dry; then say "   would run: $*"; else "$@"; fi
}

begin "Tools"
fly=fly
if $dry; then
    say "   would look for: fly (or flyctl), curl, and an account that is logged in"
else
    command -v fly >/dev/null || fly=flyctl
    command -v "$fly" >/dev/null || missing "fly is not installed: https://fly.io/docs/flyctl/install/"
    command -v curl >/dev/null || missing "curl is not installed."
    "$fly" auth whoami >/dev/null || missing "Log in first: fly auth login"
fi

# Output of fly on one line, with one object after the other behind line breaks.
objects() { tr -d '\n' | sed -E 's/[[:space:]]*([{}:,])[[:space:]]*/\1/g' | tr '{' '\n'; }

begin "Configuration"
change "$fly" config validate --config "$config" --app "$app" ||
    missing "$config is not valid for $app; if there is no such app: fly apps create $app"

begin "Address"
address=${INTERVIEW_PUBLIC_IP:-}
if $dry; then
    say "   would look for the dedicated IPv4 in: fly ips list --app $app --json"
    address=${address:-203.0.113.5}
elif [[ -z $address ]]; then
    told=$("$fly" ips list --app "$app" --json) || missing "fly does not tell the addresses of $app."
    # UDP comes through a dedicated IPv4 alone; "v4" in quotes is none of the shared ones.
    address=$(objects <<<"$told" | grep -iE '"type":"v4"' |
        sed -nE 's/.*"(address|ip)":"([0-9.]+)".*/\2/pI' | head -n 1) || true
    [[ -n $address ]] ||
        missing "$app has no dedicated IPv4, without which no UDP reaches it: fly ips allocate-v4 --app $app"
fi
say "   browsers will send audio to $address"

begin "Machines"
machines=""
if $dry; then
    say "   would look for: fly machine list --app $app --json"
    machines=ID
else
    told=$("$fly" machine list --app "$app" --json) || missing "fly does not tell the machines of $app."
    groups=$(grep -oE '"fly_process_group": *"[^"]*"' <<<"$told" | grep -v release_command | sort | uniq -d) || true
    [[ -z $groups ]] ||
        missing "More than one machine has the same UDP port, so audio would reach the wrong one: fly scale count 1 --app $app"
    machines=$(objects <<<"$told" | sed -nE 's/^"id":"([0-9a-z]+)".*"state":"started".*/\1/p')
fi

begin "Secrets"
present=""
if $dry; then
    say "   would look for what is set in: fly secrets list --app $app --json"
else
    told=$("$fly" secrets list --app "$app" --json) || missing "fly does not tell the secrets of $app."
    present=$(objects <<<"$told" | sed -nE 's/.*"name":"([A-Za-z0-9_]+)".*/\1/pI')
fi
has() { grep -qx "$1" <<<"$present"; }
if ! $dry; then
    has OPENAI_API_KEY || [[ -n ${OPENAI_API_KEY:-} || $(configured SIMULATION_MODE) == true ]] ||
        missing "OPENAI_API_KEY is not set: export it, or fly secrets set --stage OPENAI_API_KEY=… --app $app"
    has INTERVIEW_ADMIN_KEY || [[ -n ${INTERVIEW_ADMIN_KEY:-} ]] ||
        missing "INTERVIEW_ADMIN_KEY is not set: export INTERVIEW_ADMIN_KEY=\"\$(openssl rand -hex 32)\""
    has INTERVIEW_JOIN_SECRET || [[ -n ${INTERVIEW_JOIN_SECRET:-} ]] ||
        has INTERVIEW_JWKS_URL || [[ -n $(configured INTERVIEW_JWKS_URL) ]] ||
        [[ $(configured INTERVIEW_ALLOW_ANONYMOUS) == true ]] ||
        missing "INTERVIEW_JOIN_SECRET is not set: export INTERVIEW_JOIN_SECRET=\"\$(openssl rand -hex 32)\""
fi
set_secrets() {
    {
        printf 'INTERVIEW_PUBLIC_IP=%s\n' "$address"
        for name in OPENAI_API_KEY INTERVIEW_ADMIN_KEY INTERVIEW_JOIN_SECRET; do
            [[ -z ${!name:-} ]] || printf '%s=%s\n' "$name" "${!name}"
        done
    } | "$fly" secrets import --stage --app "$app"
}
if $dry; then
    say "   would run: $fly secrets import --stage --app $app"
else
    set_secrets || failed "The secrets were not taken; nothing was deployed."
fi

begin "Empty the server"
if [[ -z $drain ]]; then
    say "   left out; interviews have INTERVIEW_DRAIN_SECONDS after SIGTERM"
elif [[ -z $machines ]]; then
    say "   nothing runs yet"
else
    for machine in $machines; do
        change "$fly" ssh console --quiet --app "$app" --machine "$machine" --command \
            "/opt/interview-peer/bin/interview-peer drain --wait --seconds $drain" ||
            failed "The server could not be emptied. It runs on, but may let nobody in any more: try again, or with --no-drain."
    done
fi

begin "Deploy"
closed=""
if [[ -n $drain && -n $machines ]]; then
    closed=$'\n'"The server that was emptied may still run and lets nobody in: deploy again, or let it in again with: fly apps restart $app"
fi
change "$fly" "${deployment[@]}" ||
    failed "The deployment failed; what it says stands above. Logs: fly logs --app $app --no-tail$closed"

begin "Verify"
change curl --silent --show-error --fail --output /dev/null --max-time 5 \
    --retry 30 --retry-delay 2 --retry-all-errors "$url/readyz" ||
    failed "$url/readyz does not say that it is ready. Logs: fly logs --app $app --no-tail. The version before: fly releases --app $app --image, then fly deploy --image …"

if $dry; then
    say "Nothing was changed. Deployed, it would be at $url"
else
    say "Deployed: $url"
fi
