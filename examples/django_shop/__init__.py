"""A shop in Django: views put orders into a queue, ``manage.py ship`` ships them."""
