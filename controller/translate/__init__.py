"""The mesh's values as xDS resources, one module per resource type. Pure: equal input gives equal bytes."""
