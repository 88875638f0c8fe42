"""The prediction log: the API writes its predictions and refusals in the background, and monitoring reads them."""
