module github.com/responses-gateway/responses-gateway/tools/healthcheck

go 1.23.0
