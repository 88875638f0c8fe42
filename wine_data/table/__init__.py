"""Tables of wines as text: dialect, column names, colours, cells. Serving also reads them, without pandas."""
