# Targets for compose.observability.yml; the Makefile includes this file.

# The files of plain docker compose, with the overlay after compose.yml.
OVERRIDE := $(firstword $(wildcard $(foreach name,compose docker-compose,$(name).override.yml $(name).override.yaml)))
COMPOSE_FILES = $(subst ;, ,$(subst :, ,$(call setting,COMPOSE_FILE,compose.yml:$(OVERRIDE))))
FILES := compose.yml compose.observability.yml
OBS_COMPOSE = $(COMPOSE) $(addprefix -f ,$(FILES) $(filter-out $(FILES),$(COMPOSE_FILES)))
OBS_DEV_ENV = APP_UPSTREAM_URL=http://127.0.0.1:$(DEV_PORT) \
  APP_EXTENSIONS="$(or $(APP_EXTENSIONS),app.observability:setup_observability)" APP_PRINT_SPANS=true \
  OTEL_SERVICE_NAME=backend OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none \
  OTEL_LOGS_EXPORTER=none OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false \
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=fastapi,asgi,starlette OTEL_SEMCONV_STABILITY_OPT_IN=http

.PHONY: obs-prepare
obs-prepare:
	@sh observability/prepare.sh

build:: obs-prepare
	$(OBS_COMPOSE) build

# promtool rejects the configuration without the token file, which start.sh writes.
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
obs-down: obs-prepare ## Stop and remove all containers; keep the data
	$(OBS_COMPOSE) down

.PHONY: obs-logs
obs-logs: obs-prepare ## Follow the logs of all containers
	$(OBS_COMPOSE) logs --follow --tail 100

.PHONY: obs-status
obs-status: obs-prepare ## Show health, address and disk usage of each service
	@COMPOSE="$(OBS_COMPOSE)" sh observability/status.sh

# The backend's image cannot be pulled.
CHECK = docker image inspect $$($(OBS_COMPOSE) --profile check config --images obs-check) >/dev/null 2>&1 || \
  { echo "The backend's image is missing. Run make obs-up once." >&2; exit 1; }; $(OBS_COMPOSE) run --rm --no-deps obs-check

.PHONY: obs-check
obs-check: obs-prepare ## Check that one request is in metrics, traces and logs
	@$(CHECK)

.PHONY: obs-alert-test
obs-alert-test: obs-prepare ## Make one alert fire with slow requests, then resolve (takes minutes)
	@$(CHECK) python /check/alert_test.py

.PHONY: obs-traffic
obs-traffic: obs-prepare ## Send a mix of requests to see in Grafana: SECONDS=60
	@$(CHECK) python /check/traffic.py --seconds $(or $(SECONDS),60)

.PHONY: obs-backup
obs-backup: obs-prepare ## Back up metrics, logs, traces and changes in Grafana to one file: FILE=...
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh backup "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-restore
obs-restore: obs-prepare ## Restore a backup of obs-backup: FILE=... (asks first)
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh restore "$(or $(FILE),observability.tar.gz)"

.PHONY: obs-clean
obs-clean: obs-prepare ## Delete all metrics, logs, traces and changes in Grafana (asks first); the API keeps running
	@COMPOSE="$(OBS_COMPOSE)" sh observability/data.sh clean

.PHONY: obs-pin
obs-pin: obs-prepare ## Pin the images by digest, in .env
	@sh observability/pin.sh

.PHONY: obs-dev
obs-dev: $(VENV)/.installed ## Run without containers; print logs and spans to the terminal
	cd backend && $(OBS_DEV_ENV) .venv/bin/opentelemetry-instrument \
	  .venv/bin/uvicorn app.main:app --reload --no-access-log --port $(DEV_PORT)
