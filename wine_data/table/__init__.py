"""Tables of wines as text: dialect, names of columns, colours, cells. Serving reads them too, with no pandas."""
