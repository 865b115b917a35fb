#!/bin/sh
# Alertmanager reads no environment variables, so this script selects the receiver: webhook if ALERT_WEBHOOK_URL
# is set, otherwise silent, which notifies nobody.
set -eu

receiver=silent
if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
  receiver=webhook
  (umask 077 && printf %s "$ALERT_WEBHOOK_URL" >/tmp/webhook-url)
fi
sed "s/^  receiver: silent\$/  receiver: $receiver/" /etc/alertmanager/alertmanager.yml >/tmp/alertmanager.yml
exec /bin/alertmanager --config.file=/tmp/alertmanager.yml "$@"
