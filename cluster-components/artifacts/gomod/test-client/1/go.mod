module slipway.dev/test-client

go 1.24
