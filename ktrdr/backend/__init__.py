"""The backend: operations from submission to their one end; knows neither torch nor who runs them."""
