"""Environment variables through which the processes of a run of Celery's tests know of each other."""

BROKER = "LIGHTBUS_CELERY_SUITE_BROKER"  #: redis or rabbitmq
FOLDER = "LIGHTBUS_CELERY_SUITE_FOLDER"  #: where the worker writes its log
SETTINGS = "LIGHTBUS_CELERY_SUITE_SETTINGS"  #: Celery's settings of the test process, as JSON
WORKER = "LIGHTBUS_CELERY_SUITE_WORKER"  #: lightbus or, to compare, celery
