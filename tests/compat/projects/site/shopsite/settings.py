import os

SECRET_KEY = "not one"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"]}}
TIME_ZONE = "Asia/Tokyo"
USE_TZ = True
LOGGING_CONFIG = None

CELERY_BROKER_URL = os.environ["SITE_BROKER"]
CELERY_RESULT_BACKEND = os.environ["SITE_BACKEND"]
CELERY_TASK_DEFAULT_QUEUE = f"site-{os.environ['SITE_ENGINE']}"
CELERY_TASK_COMPRESSION = "gzip"
CELERY_TASK_ANNOTATIONS = {"shop.tasks.annotated": {"max_retries": 1, "default_retry_delay": 0}}
CELERY_RESULT_EXTENDED = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_SHOP_LIMIT = 17
