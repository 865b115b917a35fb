# Targets for the stack of compose.observability.yml, added to the Makefile's own.

OBS_COMPOSE := $(COMPOSE) -f compose.yml -f compose.observability.yml
OBS_DEV_ENV := APP_UPSTREAM_URL=http://127.0.0.1:$(BACKEND_PORT) \
  APP_EXTENSIONS=app.observability:setup_observability APP_PRINT_SPANS=true \
  OTEL_SERVICE_NAME=backend OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none \
  OTEL_LOGS_EXPORTER=none OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false \
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=fastapi,asgi,starlette OTEL_SEMCONV_STABILITY_OPT_IN=http

build:: .env
	$(OBS_COMPOSE) build

# start.sh makes the token's file, without which promtool rejects the configuration.
check-config:: .env
	$(OBS_COMPOSE) config --quiet
	$(OBS_COMPOSE) run --rm --no-deps --entrypoint sh prometheus -c \
	  'touch /tmp/metrics-token && promtool check config --lint=all --lint-fatal /etc/prometheus/prometheus.yml'
	$(OBS_COMPOSE) run --rm --no-deps --entrypoint amtool alertmanager check-config /etc/alertmanager/alertmanager.yml

.PHONY: obs-up
obs-up: .env ## Start the service with metrics, logs, traces and dashboards
	@BIND_ADDRESS=$(call setting,BIND_ADDRESS,127.0.0.1) \
	  GF_AUTH_ANONYMOUS_ENABLED=$(call setting,GRAFANA_ANONYMOUS,true) sh observability/grafana/start.sh true
	$(OBS_COMPOSE) up --build --detach --wait
	@echo "Grafana: http://$$($(OBS_COMPOSE) port grafana 3000)"

.PHONY: obs-down
obs-down: .env ## Stop and remove all containers; the data stays
	$(OBS_COMPOSE) down

.PHONY: obs-logs
obs-logs: .env ## Follow the logs of all containers
	$(OBS_COMPOSE) logs --follow --tail 100

.PHONY: obs-status
obs-status: .env ## Show health, address and disk use of each service
	@COMPOSE="$(OBS_COMPOSE)" sh observability/status.sh

# In the backend's image, which nobody can pull.
CHECK = docker image inspect $$($(OBS_COMPOSE) --profile check config --images obs-check) >/dev/null 2>&1 || \
  { echo "The backend's image is missing. Run make obs-up once." >&2; exit 1; }; $(OBS_COMPOSE) run --rm --no-deps obs-check

.PHONY: obs-check
obs-check: .env ## Follow one request through metrics, traces and logs
	@$(CHECK)

.PHONY: obs-alert-test
obs-alert-test: .env ## Raise one alert with slow requests, and see it fire and clear (takes minutes)
	@$(CHECK) python /check/alert_test.py

.PHONY: obs-backup
obs-backup: .env ## Write metrics, logs, traces and changes made in Grafana to one file: FILE=...
	@CORE="$(COMPOSE)" COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh backup "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-restore
obs-restore: .env ## Put back what obs-backup wrote: FILE=... (asks first)
	@CORE="$(COMPOSE)" COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh restore "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-clean
obs-clean: .env ## Delete all metrics, logs, traces and changes made in Grafana (asks first); the API goes on
	@CORE="$(COMPOSE)" COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh clean

.PHONY: obs-pin
obs-pin: .env ## Fix the images by their digests, in .env
	@sh observability/pin.sh

.PHONY: obs-dev
obs-dev: $(VENV)/.installed ## Run on this machine without containers; logs and spans on the terminal
	cd backend && $(OBS_DEV_ENV) .venv/bin/opentelemetry-instrument \
	  .venv/bin/uvicorn app.main:app --reload --no-access-log --port $(BACKEND_PORT)

# Not in a repository, so a fresh clone has none, and a copy of .env.example has no password.
ifeq ($(shell grep -s '^GRAFANA_ADMIN_PASSWORD=.' .env),)
.PHONY: .env
endif
.env:
	@umask 077 && password=$$(head -c 24 /dev/urandom | base64 | tr '+/' '-_') && \
	  from=.env && { test -f .env || from=.env.example; } && \
	  awk -v line="GRAFANA_ADMIN_PASSWORD=$$password" '/^GRAFANA_ADMIN_PASSWORD=$$/ {$$0 = line; done = 1} \
	    {print} END {if (!done) print line}' $$from > .env.new && mv .env.new .env
	@echo "Wrote .env, with a new password for Grafana's admin."
