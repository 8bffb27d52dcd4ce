"""HTTP only: routes, request and response models, errors to statuses, the OpenAPI document."""
