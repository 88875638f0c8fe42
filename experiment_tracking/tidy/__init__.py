"""What may go from the stores: old runs, versions, models, wines, bundles and reports that nobody needs."""
