# Targets for the stack of compose.observability.yml, added to the Makefile's own.

# The files that plain docker compose takes, with the overlay after compose.yml.
OVERRIDE := $(firstword $(wildcard $(foreach name,compose docker-compose,$(name).override.yml $(name).override.yaml)))
COMPOSE_FILES := $(subst ;, ,$(subst :, ,$(call setting,COMPOSE_FILE,compose.yml:$(OVERRIDE))))
FILES := compose.yml compose.observability.yml
OBS_COMPOSE := $(COMPOSE) $(addprefix -f ,$(FILES) $(filter-out $(FILES),$(COMPOSE_FILES)))
OBS_DEV_ENV = APP_UPSTREAM_URL=http://127.0.0.1:$(DEV_PORT) \
  APP_EXTENSIONS=app.observability:setup_observability APP_PRINT_SPANS=true \
  OTEL_SERVICE_NAME=backend OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none \
  OTEL_LOGS_EXPORTER=none OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false \
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=fastapi,asgi,starlette OTEL_SEMCONV_STABILITY_OPT_IN=http

.PHONY: obs-prepare
obs-prepare:
	@sh observability/prepare.sh

build:: obs-prepare
	$(OBS_COMPOSE) build

# start.sh makes the token's file, without which promtool rejects the configuration.
check-config:: obs-prepare
	$(OBS_COMPOSE) config --quiet
	$(OBS_COMPOSE) run --rm --no-deps --entrypoint sh prometheus -c \
	  'touch /tmp/metrics-token && promtool check config --lint=all --lint-fatal /etc/prometheus/prometheus.yml'
	$(OBS_COMPOSE) run --rm --no-deps --entrypoint amtool alertmanager check-config /etc/alertmanager/alertmanager.yml

.PHONY: obs-up
obs-up: obs-prepare ## Start the service with metrics, logs, traces and dashboards
	@BIND_ADDRESS=$(call setting,BIND_ADDRESS,127.0.0.1) \
	  GF_AUTH_ANONYMOUS_ENABLED=$(call setting,GRAFANA_ANONYMOUS,true) sh observability/grafana/start.sh true
	$(OBS_COMPOSE) up --build --detach --wait
	@echo "Grafana: http://$$($(OBS_COMPOSE) port grafana 3000)"

.PHONY: obs-down
obs-down: obs-prepare ## Stop and remove all containers; the data stays
	$(OBS_COMPOSE) down

.PHONY: obs-logs
obs-logs: obs-prepare ## Follow the logs of all containers
	$(OBS_COMPOSE) logs --follow --tail 100

.PHONY: obs-status
obs-status: obs-prepare ## Show health, address and disk use of each service
	@COMPOSE="$(OBS_COMPOSE)" sh observability/status.sh

# In the backend's image, which nobody can pull.
CHECK = docker image inspect $$($(OBS_COMPOSE) --profile check config --images obs-check) >/dev/null 2>&1 || \
  { echo "The backend's image is missing. Run make obs-up once." >&2; exit 1; }; $(OBS_COMPOSE) run --rm --no-deps obs-check

.PHONY: obs-check
obs-check: obs-prepare ## Follow one request through metrics, traces and logs
	@$(CHECK)

.PHONY: obs-alert-test
obs-alert-test: obs-prepare ## Raise one alert with slow requests, and see it fire and clear (takes minutes)
	@$(CHECK) python /check/alert_test.py

.PHONY: obs-traffic
obs-traffic: obs-prepare ## Send a mix of requests to look at in Grafana: SECONDS=60
	@$(CHECK) python /check/traffic.py --seconds $(or $(SECONDS),60)

.PHONY: obs-backup
obs-backup: obs-prepare ## Write metrics, logs, traces and changes made in Grafana to one file: FILE=...
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh backup "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-restore
obs-restore: obs-prepare ## Put back what obs-backup wrote: FILE=... (asks first)
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh restore "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-clean
obs-clean: obs-prepare ## Delete all metrics, logs, traces and changes made in Grafana (asks first); the API goes on
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh clean

.PHONY: obs-pin
obs-pin: obs-prepare ## Fix the images by their digests, in .env
	@sh observability/pin.sh

.PHONY: obs-dev
obs-dev: $(VENV)/.installed ## Run on this machine without containers; logs and spans on the terminal
	cd backend && $(OBS_DEV_ENV) .venv/bin/opentelemetry-instrument \
	  .venv/bin/uvicorn app.main:app --reload --no-access-log --port $(DEV_PORT)
